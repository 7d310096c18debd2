select max(ifnull((select seq from sqlite_sequence where name = 'ValidPaths'), 0), ifnull((select max(id) from ValidPaths), 0))
