select count(*) from ValidPaths
