select id, path, deriver, narSize from ValidPaths order by id
