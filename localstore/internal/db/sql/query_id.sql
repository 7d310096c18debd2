select id from ValidPaths where path = ?1
