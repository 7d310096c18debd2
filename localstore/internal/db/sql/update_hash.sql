update ValidPaths set hash = ?2, narSize = ?3 where path = ?1
