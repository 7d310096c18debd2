select count(*) from ValidPaths where id > ?1
