select distinct concert_id, 'Spring' as title, date '2026-03-01' as concert_date from {{ source('office', 'pay') }}
