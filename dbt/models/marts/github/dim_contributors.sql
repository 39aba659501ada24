with contributors as (
    select
        contributor_id,
        min(contributor_name) as contributor_name,
        min(contributor_email) as contributor_email,
        count(*) as repositories
    from {{ ref('stg_github__contributors') }}
    group by contributor_id
),

activity as (
    select
        contributor_id,
        count(*) as commits,
        sum(case when is_merge then 1 else 0 end) as merge_commits,
        sum(insertions) as insertions,
        sum(deletions) as deletions,
        count(distinct authored_date) as active_days,
        min(authored_at) as first_authored_at,
        max(authored_at) as last_authored_at
    from {{ ref('int_commits_attributed') }}
    group by contributor_id
),

final as (
    select
        contributors.contributor_id,
        contributors.contributor_name,
        contributors.contributor_email,
        cast(contributors.repositories as {{ dbt.type_bigint() }}) as repositories,
        cast(coalesce(activity.commits, 0) as {{ dbt.type_bigint() }}) as commits,
        cast(coalesce(activity.merge_commits, 0) as {{ dbt.type_bigint() }}) as merge_commits,
        cast(coalesce(activity.insertions, 0) as {{ dbt.type_bigint() }}) as insertions,
        cast(coalesce(activity.deletions, 0) as {{ dbt.type_bigint() }}) as deletions,
        cast(coalesce(activity.active_days, 0) as {{ dbt.type_bigint() }}) as active_days,
        activity.first_authored_at,
        activity.last_authored_at
    from contributors
    left join activity
        on contributors.contributor_id = activity.contributor_id
)

select * from final
