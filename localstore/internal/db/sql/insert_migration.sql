insert or ignore into SchemaMigrations (migration) values (?1)
