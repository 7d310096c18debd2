select id, path from ValidPaths where id > ?1 order by id limit ?2
