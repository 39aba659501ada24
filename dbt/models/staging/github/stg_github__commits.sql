with source as (
    select * from {{ source('github', 'commits') }}
),

renamed as (
    select
        cast(repository_id as {{ dbt.type_string() }}) as repository_id,
        cast(hash as {{ dbt.type_string() }}) as commit_hash,
        cast(parent_count as {{ dbt.type_int() }}) as parent_count,
        cast(author_name as {{ dbt.type_string() }}) as author_name,
        cast(author_email as {{ dbt.type_string() }}) as author_email,
        cast(authored_at as {{ dbt.type_timestamp() }}) as authored_at,
        cast(committer_name as {{ dbt.type_string() }}) as committer_name,
        cast(committer_email as {{ dbt.type_string() }}) as committer_email,
        cast(committed_at as {{ dbt.type_timestamp() }}) as committed_at,
        cast(message as {{ dbt.type_string() }}) as message,
        cast(coalesce(files_changed, 0) as {{ dbt.type_int() }}) as files_changed,
        cast(coalesce(insertions, 0) as {{ dbt.type_bigint() }}) as insertions,
        cast(coalesce(deletions, 0) as {{ dbt.type_bigint() }}) as deletions,
        cast(ingested_at as {{ dbt.type_timestamp() }}) as ingested_at
    from source
)

select * from renamed
