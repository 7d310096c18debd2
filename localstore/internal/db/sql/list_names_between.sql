select id, path from ValidPaths where id between ?1 and ?2 order by id
