delete from Refs where referrer between ?1 and ?2
