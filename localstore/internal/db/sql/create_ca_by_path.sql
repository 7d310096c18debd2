create table if not exists BuildTraceV3 (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null,
    outputPath text not null,
    signatures text
);

create index if not exists IndexBuildTraceV3 on BuildTraceV3(drvPath, outputName);
