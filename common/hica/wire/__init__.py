"""What crosses between coordinator and site, and what is kept between rounds, with its checks."""
