select id from {{ ref('from_another_file') }}
