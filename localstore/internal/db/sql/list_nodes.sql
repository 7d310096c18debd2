select id, path, narSize from ValidPaths order by id
