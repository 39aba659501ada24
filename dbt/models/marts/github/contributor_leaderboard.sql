with commits as (
    select * from {{ ref('fct_commits') }}
    where contributor_id is not null
),

contributors as (
    select * from {{ ref('dim_contributors') }}
),

counted as (
    select
        repository_id,
        contributor_id,
        count(*) as commits,
        sum(insertions) as insertions,
        sum(deletions) as deletions,
        count(distinct authored_date) as active_days,
        min(authored_at) as first_authored_at,
        max(authored_at) as last_authored_at
    from commits
    group by repository_id, contributor_id
),

ranked as (
    select
        *,
        rank() over (partition by repository_id order by commits desc) as leaderboard_rank,
        sum(commits) over (partition by repository_id) as repository_commits
    from counted
),

final as (
    select
        {{ surrogate_key(['ranked.repository_id', 'ranked.contributor_id']) }} as leaderboard_key,
        ranked.repository_id,
        ranked.contributor_id,
        contributors.contributor_name,
        cast(ranked.leaderboard_rank as {{ dbt.type_bigint() }}) as leaderboard_rank,
        cast(ranked.commits as {{ dbt.type_bigint() }}) as commits,
        {{ ratio('ranked.commits', 'ranked.repository_commits', 6) }} as share_of_commits,
        cast(ranked.insertions as {{ dbt.type_bigint() }}) as insertions,
        cast(ranked.deletions as {{ dbt.type_bigint() }}) as deletions,
        cast(ranked.active_days as {{ dbt.type_bigint() }}) as active_days,
        ranked.first_authored_at,
        ranked.last_authored_at
    from ranked
    inner join contributors
        on ranked.contributor_id = contributors.contributor_id
)

select * from final
