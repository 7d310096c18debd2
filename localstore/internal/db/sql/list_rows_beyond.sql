select id, hash, registrationTime, deriver, narSize, ultimate, sigs, ca, path from ValidPaths where id > ?1 order by id limit ?2
