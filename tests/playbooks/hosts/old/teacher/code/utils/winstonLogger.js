'use strict';

// winstonLogger of 3.1.0
module.exports = {};
