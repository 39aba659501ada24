with repositories as (
    select * from {{ ref('stg_github__repositories') }}
),

activity as (
    select
        repository_id,
        count(*) as commits,
        count(distinct contributor_id) as contributors,
        min(authored_at) as first_authored_at,
        max(authored_at) as last_authored_at
    from {{ ref('int_commits_attributed') }}
    group by repository_id
),

final as (
    select
        repositories.repository_id,
        repositories.repository_name,
        repositories.repository_url,
        repositories.default_branch,
        repositories.head_hash,
        repositories.is_shallow,
        cast(coalesce(activity.commits, 0) as {{ dbt.type_bigint() }}) as commits,
        cast(coalesce(activity.contributors, 0) as {{ dbt.type_bigint() }}) as contributors,
        activity.first_authored_at,
        activity.last_authored_at
    from repositories
    left join activity
        on repositories.repository_id = activity.repository_id
)

select * from final
