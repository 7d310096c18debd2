delete from ValidPaths where id between ?1 and ?2
