with commits as (
    select
        *,
        insertions + deletions as lines_changed,
        {{ week_start('authored_date') }} as week_start_date
    from {{ ref('fct_commits') }}
),

-- Not every warehouse has the median as an aggregate. It is the mean of the one or two lines in the middle.
placed as (
    select
        *,
        2 * row_number() over (
            partition by repository_id, week_start_date, lines_changed is null
            order by lines_changed
        ) as doubled_place,
        count(lines_changed) over (partition by repository_id, week_start_date) as counted
    from commits
),

weeks as (
    select
        repository_id,
        week_start_date,
        count(*) as commits,
        count(distinct contributor_id) as contributors,
        sum(insertions) as insertions,
        sum(deletions) as deletions,
        avg(case when doubled_place between counted and counted + 2 then lines_changed end) as median_lines_changed
    from placed
    group by repository_id, week_start_date
),

final as (
    select
        {{ surrogate_key(['repository_id', 'week_start_date']) }} as activity_key,
        repository_id,
        week_start_date,
        cast(commits as {{ dbt.type_bigint() }}) as commits,
        cast(contributors as {{ dbt.type_bigint() }}) as contributors,
        cast(insertions as {{ dbt.type_bigint() }}) as insertions,
        cast(deletions as {{ dbt.type_bigint() }}) as deletions,
        {{ dbt.cast('median_lines_changed', 'numeric(18, 1)') }} as median_lines_changed
    from weeks
)

select * from final
