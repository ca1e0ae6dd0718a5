'use strict';

// dealResult of 3.1.0
module.exports = {};
