with commits as (
    select * from {{ ref('fct_commits') }}
),

days as (
    select
        repository_id,
        authored_date,
        count(*) as commits,
        sum(case when is_merge then 1 else 0 end) as merge_commits,
        count(distinct contributor_id) as contributors,
        sum(insertions) as insertions,
        sum(deletions) as deletions
    from commits
    group by repository_id, authored_date
),

final as (
    select
        {{ surrogate_key(['repository_id', 'authored_date']) }} as activity_key,
        repository_id,
        authored_date as activity_date,
        cast(commits as {{ dbt.type_bigint() }}) as commits,
        cast(merge_commits as {{ dbt.type_bigint() }}) as merge_commits,
        cast(contributors as {{ dbt.type_bigint() }}) as contributors,
        cast(insertions as {{ dbt.type_bigint() }}) as insertions,
        cast(deletions as {{ dbt.type_bigint() }}) as deletions,
        cast(
            sum(commits) over (partition by repository_id order by authored_date) as {{ dbt.type_bigint() }}
        ) as commits_to_date
    from days
)

select * from final
