insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
