select reference from Refs where referrer = ?1
