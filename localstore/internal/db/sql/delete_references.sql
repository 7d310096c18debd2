delete from Refs where referrer = (select id from ValidPaths where path = ?1)
