delete from Refs where referrer in (select id from ValidPaths where path in (select value from json_each(?1)))
