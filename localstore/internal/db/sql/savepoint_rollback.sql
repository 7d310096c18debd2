rollback to member
