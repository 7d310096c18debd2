savepoint member
