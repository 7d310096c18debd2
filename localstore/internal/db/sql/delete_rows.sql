delete from ValidPaths where id in (select value from json_each(?1))
