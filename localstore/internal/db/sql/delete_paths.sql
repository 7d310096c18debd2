delete from ValidPaths where path in (select value from json_each(?1))
