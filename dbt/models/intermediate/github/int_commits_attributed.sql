with commits as (
    select * from {{ ref('stg_github__commits') }}
),

contributors as (
    select * from {{ ref('stg_github__contributors') }}
),

attributed as (
    select
        commits.repository_id,
        commits.commit_hash,
        contributors.contributor_id,
        commits.author_name,
        commits.author_email,
        commits.authored_at,
        cast(commits.authored_at as date) as authored_date,
        commits.committer_name,
        commits.committer_email,
        commits.committed_at,
        trim(
            replace(
                {{ dbt.split_part('commits.message', 'chr(10)', 1) }},
                chr(13),
                ''
            )
        ) as subject,
        commits.parent_count,
        commits.parent_count > 1 as is_merge,
        commits.files_changed,
        commits.insertions,
        commits.deletions
    from commits
    left join contributors
        on
            commits.repository_id = contributors.repository_id
            and commits.author_name = contributors.contributor_name
            and commits.author_email = contributors.contributor_email
)

select * from attributed
