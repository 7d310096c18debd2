select 1 from Refs where reference between ?1 and ?2 limit 1
