select id, path, hash, narSize from ValidPaths where id > ?1 order by id limit ?2
