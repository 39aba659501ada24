-- Contributors whose loaded commits are not as many as the loader counted (`git shortlog -sne`).
{{ config(group='github', tags=['github']) }}

with counted as (
    select
        repository_id,
        contributor_id,
        count(*) as commits
    from {{ ref('fct_commits') }}
    group by repository_id, contributor_id
),

recorded as (
    select * from {{ ref('stg_github__contributors') }}
)

select
    recorded.repository_id,
    recorded.contributor_id,
    recorded.recorded_commits,
    counted.commits
from recorded
left join counted
    on
        recorded.repository_id = counted.repository_id
        and recorded.contributor_id = counted.contributor_id
where recorded.recorded_commits <> coalesce(counted.commits, 0)
