insert or replace into Refs (referrer, reference) values (?1, ?2)
