select 1 from Refs where reference in (select value from json_each(?1)) limit 1
