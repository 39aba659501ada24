select sum(amount) as total, (select max(value) from {{ source('raw', 'switch') }}) as value
from {{ ref('payments') }}
