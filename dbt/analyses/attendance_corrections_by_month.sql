-- Corrections of attendance made after the fact, by month: an unusual month is worth asking about.
select
    cast({{ dbt.date_trunc('month', 'recorded_at') }} as date) as correction_month,
    count(*) as corrections,
    count(distinct musician_id) as musicians
from {{ ref('br_attendance_scd2') }}
where recorded_at > effective_from
group by 1
order by 1 desc
limit 12
