select id, deriver from ValidPaths where deriver is not null
