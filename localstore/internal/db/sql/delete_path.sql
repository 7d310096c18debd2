delete from ValidPaths where path = ?1
