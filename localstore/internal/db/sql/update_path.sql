update ValidPaths set narSize = ?2, hash = ?3, ultimate = ?4, sigs = ?5, ca = ?6 where id = ?1
