update ValidPaths set sigs = ?2 where path = ?1
