"""A member on its way into production: the folder that loads without spp, its exports, its speed."""
