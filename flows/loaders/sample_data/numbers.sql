-- Pseudo-random numbers that are the same on every machine and with every version of DuckDB.
-- Integer arithmetic only: random() and hash() promise nothing across versions, md5 costs 60 times as much
-- (measured with duckdb 2.0, 2026-11: 5 million draws in 0.05 s and 2.9 s).

-- Scrambles a number below 2^32; no product exceeds 2^59, so nothing overflows. Twice is enough for chances,
-- and each more time doubles the expressions that DuckDB has to plan.
create or replace temp macro scrambled(x) as (xor(x, x >> 16) * 73244475) & 4294967295;

-- A number below 2^32 for one thing (entity), one of its occurrences (item, below 2^30) and one question
-- (topic).
create or replace temp macro draw(entity, item, topic) as scrambled(scrambled((
    getvariable('seed')
    + (entity::bigint & 1073741823) * 1540483477
    + item::bigint * 374761393
    + topic::bigint * 668265263
) & 4294967295));
create or replace temp macro between_draw(entity, item, topic, low, high) as
    low + draw(entity, item, topic) % (high - low + 1);
create or replace temp macro chance(entity, item, topic, per_ten_thousand) as
    draw(entity, item, topic) % 10000 < per_ten_thousand;

create or replace temp macro hundredths(x) as ((x)::decimal(18, 0) * 0.01::decimal(3, 2))::decimal(18, 2);

-- The id a sync gives a row.
create or replace temp macro row_id(table_name, key) as
    md5(table_name || '|' || key || '|' || getvariable('seed'))::uuid::varchar;

-- Six syncs within the last six hours, each five minutes long.
create or replace temp macro sync_at(sync, key) as
    getvariable('now') - interval 6 hours + to_minutes(sync * 70) + to_seconds(key % 300);
