{{ config(materialized='table', pre_hook="attach if not exists '" ~ var('other_file') ~ "' as other") }}
select id from other.main.numbers
