create table if not exists SchemaMigrations (migration text primary key not null);
