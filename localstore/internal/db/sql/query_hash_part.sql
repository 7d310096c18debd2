select path from ValidPaths where path >= ?1 limit 1
