insert or ignore into Refs (referrer, reference) values (?1, ?2)
