"""The reviewer's page: candidates, their evidence, running canaries, the trail; every act also by API and command line."""
