select path from ValidPaths where id = ?1
