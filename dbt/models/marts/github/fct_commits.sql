with commits as (
    select * from {{ ref('int_commits_attributed') }}
),

final as (
    select
        {{ surrogate_key(['repository_id', 'commit_hash']) }} as commit_key,
        repository_id,
        commit_hash,
        contributor_id,
        author_name,
        author_email,
        authored_at,
        authored_date,
        committer_name,
        committer_email,
        committed_at,
        {{ hours_between('authored_at', 'committed_at') }} as hours_until_committed,
        subject,
        parent_count,
        is_merge,
        files_changed,
        insertions,
        deletions
    from commits
)

select * from final
